"""The two-view networks: torch tensors in, torch tensors out; and their weights."""

from dust3r_ros.network.checkpoint_file import CheckpointError
from dust3r_ros.network.completion import Completion, CrossViewCompletion, completion_loss, random_hidden
from dust3r_ros.network.config import OWN, PUBLISHED, NetworkConfig, NetworkError, named, published
from dust3r_ros.network.loading import load_network, save_network
from dust3r_ros.network.two_view import ImageTokens, TwoViewNetwork, TwoViewOutput

__all__ = [
    "OWN",
    "PUBLISHED",
    "CheckpointError",
    "Completion",
    "CrossViewCompletion",
    "ImageTokens",
    "NetworkConfig",
    "NetworkError",
    "TwoViewNetwork",
    "TwoViewOutput",
    "completion_loss",
    "load_network",
    "named",
    "published",
    "random_hidden",
    "save_network",
]
