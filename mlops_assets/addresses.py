"""Addresses as they may be told: in a page, a log or an error, without the password that they may carry."""

from __future__ import annotations

import re

# As SQLAlchemy reads it: a password may hold whatever a host may not. To tell too little of an address does no harm.
_SECRETS = re.compile(r"://(?:[^\s:/@]*(?::\S*)?@)?([^\s?]*)(?:\?\S*)?")


def without_secrets(text: str) -> str:
    """The text with every address in it cut down to host and path: no user, no password, no query.

    >>> without_secrets("cannot reach http://ada:s3cret@mlflow.internal:5000/api?token=abc now")
    'cannot reach http://mlflow.internal:5000/api now'
    >>> without_secrets("postgresql://ada:p@ss/word@db/mlflow"), without_secrets("sqlite:////home/ada@work/mlflow.db")
    ('postgresql://db/mlflow', 'sqlite:////home/ada@work/mlflow.db')
    """
    return _SECRETS.sub(r"://\1", text)
