"""Table 1 of "Going deeper with convolutions" (arXiv 1409.4842) as data.

The names of the Inception modules are the paper's; the numbers are output channels of each convolution.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class InceptionChannels:
    """One Inception row of Table 1, in the order of its columns."""

    conv_1x1: int
    conv_3x3_reduce: int
    conv_3x3: int
    conv_5x5_reduce: int
    conv_5x5: int
    pool_proj: int

    @property
    def output(self) -> int:
        """Channels after the four branches are concatenated."""
        return self.conv_1x1 + self.conv_3x3 + self.conv_5x5 + self.pool_proj


STEM_CHANNELS = {"conv1": 64, "conv2_reduce": 64, "conv2": 192}

INCEPTION_CHANNELS = {
    "3a": InceptionChannels(64, 96, 128, 16, 32, 32),
    "3b": InceptionChannels(128, 128, 192, 32, 96, 64),
    "4a": InceptionChannels(192, 96, 208, 16, 48, 64),
    "4b": InceptionChannels(160, 112, 224, 24, 64, 64),
    "4c": InceptionChannels(128, 128, 256, 24, 64, 64),
    "4d": InceptionChannels(112, 144, 288, 32, 64, 64),
    "4e": InceptionChannels(256, 160, 320, 32, 128, 128),
    "5a": InceptionChannels(256, 160, 320, 32, 128, 128),
    "5b": InceptionChannels(384, 192, 384, 48, 128, 128),
}

# Section 5: the auxiliary classifiers sit on the outputs of 4a and 4d.
AUX_POSITIONS = ("4a", "4d")
AUX_CONV_CHANNELS = 128
AUX_HIDDEN_FEATURES = 1024
# 14x14 maps through an average pool of 5x5, stride 3, give 4x4 at 224 px.
AUX_GRID = 4
