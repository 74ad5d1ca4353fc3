"""The two-view networks: torch tensors in, torch tensors out."""

from dust3r_ros.network.config import PUBLISHED, NetworkConfig, NetworkError
from dust3r_ros.network.two_view import ImageTokens, TwoViewNetwork, TwoViewOutput

__all__ = ["PUBLISHED", "ImageTokens", "NetworkConfig", "NetworkError", "TwoViewNetwork", "TwoViewOutput"]
