"""Where admitted tokens execute: one small protocol, one file per lane."""
