"""beartype as the tests use it: an int passes where a float is asked for, as in every call that users write."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
