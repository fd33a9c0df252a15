"""Downloads the released checkpoints from the Hugging Face hub, where their authors keep them.

`huggingface_hub` does the transfer: it resumes interrupted downloads and keeps finished files in
its cache, large ones under their SHA-256. The content of the file is compared with that name.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ape_model.errors import HubError, VariantError
from ape_model.io.checkpoint_reader import file_digest

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["HUB_FILES", "REPOSITORY", "fetch"]

REPOSITORY: Final = "shenyunhang/APE"
"""Repository of the released models (Apache-2.0)."""
_DATA: Final = "configs/LVISCOCOCOCOSTUFF_O365_OID_"
_D_DATA: Final = f"{_DATA}VGR_SA1B_REFCOCO_GQA_PhraseCut_Flickr30k/ape_deta/"
HUB_FILES: Final = {
    "A": f"{_DATA}VG/ape_deta/ape_deta_vitl_eva02_lsj_cp_720k_20230504_002019/model_final.pth",
    "B": f"{_DATA}VGR_REFCOCO/ape_deta/"
    "ape_deta_vitl_eva02_vlf_lsj_cp_1080k_20230702_225418/model_final.pth",
    "C": f"{_DATA}VGR_SA1B_REFCOCO/ape_deta/"
    "ape_deta_vitl_eva02_vlf_lsj_cp_1080k_20230702_210950/model_final.pth",
    "D": f"{_D_DATA}"
    "ape_deta_vitl_eva02_clip_vlf_lsj1024_cp_16x4_1080k_mdl_20230829_162438/model_final.pth",
    "Ti": f"{_D_DATA}"
    "ape_deta_vitt_eva02_vlf_lsj1024_cp_16x4_1080k_mdl_20240203_230000/model_final.pth",
}
"""Path of each variant in the repository."""
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def fetch(variant: str) -> Path:
    """Download the checkpoint of a variant and return its path in the hub's cache.

    The environment variable HF_ENDPOINT names another hub than https://huggingface.co.

    Raises:
        VariantError: there is no such variant.
        HubError: the extra is not installed, or the file cannot be downloaded or is damaged.
    """
    if variant not in HUB_FILES:
        raise VariantError(
            f"no variant {variant!r} on the hub: choose one of {', '.join(HUB_FILES)}"
        )
    path = Path(_download(_import_hub(), HUB_FILES[variant]))
    # The cache links file names to blobs, which are named by the SHA-256 of large files.
    blob = path.resolve()
    if _SHA256.fullmatch(blob.name) and file_digest(blob) != blob.name:
        blob.unlink()
        raise HubError(
            f"{path.name} of {variant} was damaged in transfer and is removed: pull it again"
        )
    return path


def _import_hub() -> ModuleType:
    try:
        import huggingface_hub  # noqa: PLC0415 (an extra)
    except ImportError:
        raise HubError(
            "pulling needs huggingface_hub: pip install 'ape-stream[hub]', or download"
            " model_final.pth yourself and run `ape-stream models import`"
        ) from None
    return huggingface_hub


def _download(hub: ModuleType, file: str) -> str:
    endpoint = os.environ.get("HF_ENDPOINT") or None
    try:
        found: str = hub.hf_hub_download(REPOSITORY, file, endpoint=endpoint)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())  # its messages have several lines
        raise HubError(
            f"{REPOSITORY} cannot be downloaded ({reason}): check the network and pull again, which"
            " resumes"
        ) from error
    return found
