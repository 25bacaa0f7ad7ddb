"""The model: loading, tokenizer and template, packed attention, the chunked head, log-probabilities."""
