"""The run-time check of shapes and types in tests: beartype, where an int will do for a float, as in Python itself."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
