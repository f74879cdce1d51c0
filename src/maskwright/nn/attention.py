"""Multi-head attention (Vaswani et al. 2017, section 3.2) on torch's fused kernel."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """What ``query`` tokens gather from ``value`` tokens, by how their ``key`` tokens fit.

    Args:
        channels: width of all tokens. heads: must divide it. dropout: of the attention's weights, in training.
    """

    def __init__(self, channels: int, heads: int = 8, dropout: float = 0.0) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"heads must divide channels, got {heads} heads and {channels} channels")
        self.heads, self.dropout = heads, dropout
        self.query, self.key = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.value, self.output = nn.Linear(channels, channels), nn.Linear(channels, channels)
        for layer in (self.query, self.key, self.value):
            # As torch draws the three as one matrix of three times the outputs.
            nn.init.xavier_uniform_(layer.weight, gain=0.5**0.5)
            nn.init.zeros_(layer.bias)
        nn.init.xavier_uniform_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None = None) -> Tensor:
        """[B, Q, C], [B, K, C], [B, K, C] -> [B, Q, C].

        Args:
            allowed: bool, broadcastable to [B, heads, Q, K]; each query must be allowed at least one key.
        """
        q, k, v = self._split(self.query(query)), self._split(self.key(key)), self._split(self.value(value))
        drop = self.dropout if self.training else 0.0
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=drop)
        return self.output(out.transpose(1, 2).flatten(2))

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)
