"""The engine of Prospect."""

import logging

# transformers imports peft, peft imports bitsandbytes, and that warns of a package that would only make a CPU faster.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
