"""What can be configured: `load` a frozen `Config`, `explain` it, or list its `keys`."""

from triage.config.loading import ENVIRONMENT_PREFIX, explain, keys, load, masked_url, variable_name
from triage.config.settings import BValueRule, Config, Contact, DicomSettings, Rung
from triage.config.values import PeerAddress, check_ae_title, parse_peer_address

__all__ = [
    "ENVIRONMENT_PREFIX",
    "BValueRule",
    "Config",
    "Contact",
    "DicomSettings",
    "PeerAddress",
    "Rung",
    "check_ae_title",
    "explain",
    "keys",
    "load",
    "masked_url",
    "parse_peer_address",
    "variable_name",
]
