"""Images that strangers send: decoded in memory, within limits, or refused in one line."""

import base64
import binascii
import re
from io import BytesIO

from PIL import Image

from ..inference import open_image
from .errors import ApiError

FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "AVIF")
"""What is decoded here. No TIFF, PDF or SVG: formats with programs or endless options inside."""

READABLE = "PNG, JPEG, WebP, GIF, BMP or AVIF"

MAX_PROFILE_BYTES = 4 << 20
"""Of a color profile; the largest in use (for printing) have about 3 MB."""

_DATA_URL = re.compile(r"data:image/[\w.+-]{1,32}((?:;[\w.+-]{1,32}=[\w.+-]{1,64})*);base64,", re.IGNORECASE)


def is_data_url(url: str) -> bool:
    """Tell an image that comes along from one that must be fetched."""
    return url[:5].lower() == "data:"


def bytes_of_data_url(url: str, param: str) -> bytes:
    """Return what a data URL holds.

    Raises:
        ApiError: It is not one of an image in base64.
    """
    head = _DATA_URL.match(url)
    if head is None:
        raise ApiError(400, f"{param} must begin with data:image/<kind>;base64,", param=param, code="invalid_image_url")
    try:
        data = base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise ApiError(400, f"{param} is not valid base64: {error}", param=param, code="invalid_base64") from error
    if not data:
        raise ApiError(400, f"{param} holds no image: there is nothing after the comma", param=param)
    return data


def decode_image(data: bytes, param: str, max_pixels: int) -> Image.Image:
    """Decode an image, upright and in RGB.

    Raises:
        ApiError: Another format, an animation, too large, or damaged.
    """
    try:
        image = Image.open(BytesIO(data), formats=[name for name in FORMATS if _is_known(name)])
        _check_size(image, param, max_pixels)
        _check_frames(image, param)
        _check_profile(image, param)
        return open_image(image)
    except ApiError:
        raise
    except Image.DecompressionBombError:
        raise _refusal(param, f"has more than the {max_pixels} pixels allowed: scale it down first") from None
    except Exception as error:  # decoders raise anything on damaged data
        reason = f"is not an image that can be read ({READABLE}), or it is damaged"
        raise _refusal(param, reason) from error


def _is_known(name: str) -> bool:
    Image.init()
    return name in Image.OPEN


def _check_size(image: Image.Image, param: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise _refusal(
            param, f"has {width}x{height} = {width * height} pixels, at most {max_pixels} are allowed: scale it down"
        )


def _check_frames(image: Image.Image, param: str) -> None:
    # MPO: what telephones write as .jpg, an image with its preview
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise _refusal(param, "is animated: send one frame of it")


def _check_profile(image: Image.Image, param: str) -> None:
    size = len(image.info.get("icc_profile") or b"")
    if size > MAX_PROFILE_BYTES:
        raise _refusal(param, f"has a color profile of {size} bytes, at most {MAX_PROFILE_BYTES} are allowed")


def _refusal(param: str, reason: str) -> ApiError:
    return ApiError(400, f"{param} {reason}", param=param, code="invalid_image")
