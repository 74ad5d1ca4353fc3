"""The published weights on the Hugging Face Hub: fetched once, checked, and from then on read from the hub's own cache, offline too."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from dust3r_ros.network.checkpoint_file import CheckpointError

log = logging.getLogger(__name__)

WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"
CHUNK = 1 << 22


@dataclass(frozen=True)
class PublishedWeights:
    """Where weights lie. Without a revision the one that is fetched first stays, until it is deleted from the cache."""

    repository: str
    megabytes: int
    revision: str | None = None  # a commit
    size: int | None = None  # bytes of the weights' file
    sha256: str | None = None


PUBLISHED_WEIGHTS: dict[str, PublishedWeights] = {
    "dust3r_224_linear": PublishedWeights("naver/DUSt3R_ViTLarge_BaseDecoder_224_linear", 2130),
    "dust3r_512_linear": PublishedWeights("naver/DUSt3R_ViTLarge_BaseDecoder_512_linear", 2130),
    "dust3r_512_dpt": PublishedWeights(
        "naver/DUSt3R_ViTLarge_BaseDecoder_512_dpt",
        2285,
        "61c57447d7b0adc8a1a30b2b0adec7a8935aa2a3",
        2_284_790_056,
        "7c300a89534113436bde52732d3151212bcbd90f0aa3c8d1496f86d84bfe4b42",
    ),
    "mast3r_512_catmlpdpt": PublishedWeights(
        "naver/MASt3R_ViTLarge_BaseDecoder_512_catmlpdpt_metric",
        2755,
        "06e7259f34c3060f322df5cb0c7b9094f57e41fc",
        2_754_661_648,
        "0a615eb05fa9db654050aa655945ee5696e7c6c1b7f93f1ee8c37249010f6feb",
    ),
}


def weights_of(name: str) -> PublishedWeights:
    """Raises CheckpointError for a name that nothing is published under."""
    if name not in PUBLISHED_WEIGHTS:
        raise CheckpointError(f"no published weights are called '{name}': give one of {', '.join(PUBLISHED_WEIGHTS)}")
    return PUBLISHED_WEIGHTS[name]


def cached(weights: PublishedWeights) -> Path | None:
    """The weights' file in the hub's cache, complete and with its configuration beside it; None if it is not there. No network."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    paths = [try_to_load_from_cache(weights.repository, file, revision=weights.revision) for file in (CONFIG_FILE, WEIGHTS_FILE)]
    found = [Path(path) for path in paths if isinstance(path, str)]
    if len(found) != 2:
        return None
    return found[1] if weights.size in (None, found[1].stat().st_size) else None


def fetch(weights: PublishedWeights) -> Path:
    """The weights' file, from the cache or else from the hub, with a progress bar; an interrupted download goes on where it stopped.

    Raises CheckpointError if the hub cannot be reached or refuses, the disk is too small or full, or the file is not the published one.
    """
    there = cached(weights)
    if there is not None:
        return there
    if importlib.util.find_spec("huggingface_hub") is None:
        raise CheckpointError(f"{weights.repository}: fetching needs the hub's client: pip install 'huggingface_hub<1' safetensors")
    _check_disk(weights)
    log.warning("fetching %s (%d MB) from the Hugging Face Hub; once only", weights.repository, weights.megabytes)
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        path = _download(weights, file)
    if weights.sha256 is not None and _digest(path) != weights.sha256:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise CheckpointError(
            f"{weights.repository}: the file that came is not the one published at {weights.revision} (its SHA-256 differs); "
            "it was deleted: fetch it again, and ask what stands between here and the hub"
        )
    return path


def _download(weights: PublishedWeights, file: str) -> Path:
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")  # plain HTTP resumes a download that was killed, the chunk protocol does not
    from huggingface_hub import constants, errors, hf_hub_download
    from huggingface_hub.utils import logging as hub_logging

    hub_logging.set_verbosity_error()  # its retries are silent: what comes of them is said below
    name = f"{weights.repository}/{file}"
    by_hand = "or fetch it elsewhere and give its path as 'estimator.weights'"
    try:
        return Path(hf_hub_download(weights.repository, file, revision=weights.revision))
    except errors.GatedRepoError as error:
        raise CheckpointError(f"{name}: the hub wants you to accept its terms and log in ('hf auth login'), {by_hand}") from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError) as error:
        status = _status(error)
        if status:
            raise CheckpointError(f"{name}: the hub answers {status}: try again later, {by_hand}") from error
        if isinstance(error, errors.LocalEntryNotFoundError):  # no answer at all
            why = "HF_HUB_OFFLINE forbids to ask the hub: unset it" if constants.HF_HUB_OFFLINE else "the hub cannot be reached: go online"
            raise CheckpointError(f"{name}: not in the cache, and {why} once, {by_hand}") from error
        raise CheckpointError(f"{name}: the hub does not have it (any more) for you: log in if it is private, {by_hand}") from error
    except errors.HfHubHTTPError as error:
        raise CheckpointError(f"{name}: the hub answers {_status(error) or 'an error'}: try again later, {by_hand}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CheckpointError(
                f"{name}: the disk of {_cache_folder()} is full ({weights.megabytes} MB are needed): "
                "make room or set HF_HOME, and fetch again"
            ) from error
        raise CheckpointError(f"{name}: {' '.join(str(error).split())[:160]}: check the network and fetch again, {by_hand}") from error
    except Exception as error:  # whichever HTTP library the hub's client uses has kinds of its own
        raise CheckpointError(f"{name}: {type(error).__name__} ({' '.join(str(error).split())[:160]}): fetch again, {by_hand}") from error


def _status(error: BaseException | None) -> int:
    """The HTTP status behind an error: the client wraps what it was told in 'not found locally'. 0: none, or one that says 'not found'."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(status, int):
            return 0 if status == 404 else status
        error = error.__cause__ or error.__context__
    return 0


def _check_disk(weights: PublishedWeights) -> None:
    folder = _cache_folder()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free // 1_000_000
    if free < weights.megabytes:
        raise CheckpointError(
            f"{weights.repository} takes {weights.megabytes} MB, and {folder} has {free} MB left: make room or set HF_HOME to another disk"
        )


def _cache_folder() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
