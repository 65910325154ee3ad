"""The network of PyTorch's MNIST example, for images of 8 x 8 pixels. This module does not import Loopwright."""

from torch import Tensor, nn
from torch.nn import functional


class Net(nn.Module):
    """Two convolutions, pooling, dropout and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, kernel_size=3)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3)
        self.dropout1 = nn.Dropout(0.25)
        self.dropout2 = nn.Dropout(0.5)
        self.fc1 = nn.Linear(64 * 2 * 2, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of the ten digits for images of shape (batch, 1, 8, 8)."""
        x = functional.relu(self.conv1(image))
        x = functional.relu(self.conv2(x))
        x = self.dropout1(functional.max_pool2d(x, 2))
        x = functional.relu(self.fc1(x.flatten(1)))
        return self.fc2(self.dropout2(x))
