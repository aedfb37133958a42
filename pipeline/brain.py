"""Where is the brain in a volume, so that it can be shown without its skull?"""

import numpy as np

from pipeline.detectors.head import NO_HEAD, find_head
from pipeline.detectors.upright import spread, stand_upright
from pipeline.model import Declined
from reconstruction.errors import NotAVolume
from reconstruction.volume import Mask, Volume


def brain_of(volume: Volume) -> Mask:
    """Return the inside of the skull on the grid of a straight volume; raises NotAVolume where it shows no head."""
    head = find_head(stand_upright(volume.hu, volume.geometry))
    if isinstance(head, Declined):
        raise NotAVolume(head.reason)
    image = head.image
    first, second, third = (int(o) * f for o, f in zip(image.origin, image.factors, strict=True))
    whole = tuple(np.multiply(head.inside.shape, image.factors))
    inside = spread(head.inside, image.factors, whole)
    if not inside.any():
        raise NotAVolume(NO_HEAD)
    return image.turn.mask(inside, (first, second, third), volume.geometry)
