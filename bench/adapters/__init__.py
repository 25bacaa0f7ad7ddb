"""One file a framework: how it trains on a job's rows with a meter attached."""
