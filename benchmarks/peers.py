"""What a reader would use instead, behind the interface that `revtrans` asks of a model.

All take a `TransformerConfig`, and have the same sizes as ours. `TorchTransformer` and `Tutorial`
also have the same positions, initial embeddings and tied embeddings, so that only the blocks and
the way of computing differ; `XTransformers` and `HuggingFace` have their own.
"""

import math

import torch
from torch import Tensor, nn

from revtrans.data import Vocab
from revtrans.model import TransformerConfig
from revtrans.positions import sinusoids


class Peer(nn.Module):
    """Embeddings, waves, tied unembedding; `encode` and `decode` are the peer's own."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config, self.vocab = config, Vocab(config.symbols)
        self.embedding = nn.Embedding(len(self.vocab), config.d_model)
        nn.init.normal_(self.embedding.weight, std=0.3 * config.d_model**-0.5)
        waves = sinusoids(torch.arange(config.max_length + 1), config.d_model)
        self.register_buffer("table", waves)

    def embed(self, ids: Tensor) -> Tensor:
        return self.embedding(ids) * self.config.d_model**0.5 + self.table[: ids.shape[1]]

    def forward(self, source: Tensor, decoder_input: Tensor) -> Tensor:
        padding = source == Vocab.pad
        decoded = self.decode(decoder_input, self.encode(source, padding), padding)
        return decoded @ self.embedding.weight.T

    def start(self, source: Tensor) -> "Recompute":
        return Recompute(self, source)


class Recompute:
    """Decoding without a cache: the memory is kept, all that is written is computed again."""

    def __init__(self, model: Peer, source: Tensor):
        self.model, self.padding = model, source == Vocab.pad
        self.memory = model.encode(source, self.padding)
        self.written = source.new_empty(len(source), 0)

    def step(self, ids: Tensor) -> Tensor:
        self.written = torch.cat([self.written, ids[:, None]], dim=1)
        decoded = self.model.decode(self.written, self.memory, self.padding)
        return decoded[:, -1] @ self.model.embedding.weight.T


class TorchTransformer(Peer):
    """`torch.nn.Transformer`, pre-norm, with its own initial weights."""

    def __init__(self, config: TransformerConfig, seed: int = 0):
        torch.manual_seed(seed)
        super().__init__(config)
        c = config
        sizes = (c.d_model, c.n_heads, c.n_layers, c.n_layers, c.d_ff, c.dropout)
        self.stacks = nn.Transformer(*sizes, batch_first=True, norm_first=True)

    def encode(self, source: Tensor, padding: Tensor) -> Tensor:
        return self.stacks.encoder(self.embed(source), src_key_padding_mask=padding)

    def decode(self, ids: Tensor, memory: Tensor, padding: Tensor) -> Tensor:
        n = ids.shape[1]
        later = torch.ones(n, n, dtype=torch.bool, device=ids.device).triu(1)
        return self.stacks.decoder(
            self.embed(ids),
            memory,
            tgt_mask=later,
            memory_key_padding_mask=padding,
            tgt_is_causal=True,
        )


class Tutorial(Peer):
    """Written in the manner of the early tutorials: a padded grid, masked_fill, no cache."""

    def __init__(self, config: TransformerConfig, seed: int = 0):
        torch.manual_seed(seed)
        super().__init__(config)
        d_model = config.d_model
        self.encoder = nn.ModuleList(self._layer(1) for _ in range(config.n_layers))
        self.decoder = nn.ModuleList(self._layer(2) for _ in range(config.n_layers))
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in range(2))
        for parameter in (*self.encoder.parameters(), *self.decoder.parameters()):
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def _layer(self, n_attentions: int) -> nn.ModuleDict:
        d, d_ff = self.config.d_model, self.config.d_ff
        attentions = (nn.ModuleList(nn.Linear(d, d) for _ in range(4)) for _ in range(n_attentions))
        return nn.ModuleDict(
            {
                "attentions": nn.ModuleList(attentions),
                "feed_forward": nn.Sequential(nn.Linear(d, d_ff), nn.ReLU(), nn.Linear(d_ff, d)),
                "norms": nn.ModuleList(nn.LayerNorm(d) for _ in range(n_attentions + 1)),
            }
        )

    def _attend(self, parts: nn.ModuleList, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        batch, heads = len(x), self.config.n_heads
        q, k, v = (
            linear(of).view(batch, -1, heads, x.shape[-1] // heads).transpose(1, 2)
            for linear, of in zip(parts, (x, memory, memory))
        )
        scores = torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(q.shape[-1])
        weights = scores.masked_fill(mask == 0, -1e9).softmax(dim=-1)
        joined = torch.matmul(weights, v).transpose(1, 2).contiguous().view(batch, -1, x.shape[-1])
        return parts[3](joined)

    def encode(self, source: Tensor, padding: Tensor) -> Tensor:
        x, mask = self.embed(source), ~padding[:, None, None]
        for layer in self.encoder:
            h = layer["norms"][0](x)
            x = x + self._attend(layer["attentions"][0], h, h, mask)
            x = x + layer["feed_forward"](layer["norms"][1](x))
        return self.norms[0](x)

    def decode(self, ids: Tensor, memory: Tensor, padding: Tensor) -> Tensor:
        x, n = self.embed(ids), ids.shape[1]
        earlier = torch.ones(n, n, dtype=torch.bool, device=ids.device).tril()
        mask = (ids != Vocab.pad)[:, None, None] & earlier
        for layer in self.decoder:
            h = layer["norms"][0](x)
            x = x + self._attend(layer["attentions"][0], h, h, mask)
            h = layer["norms"][1](x)
            x = x + self._attend(layer["attentions"][1], h, memory, ~padding[:, None, None])
            x = x + layer["feed_forward"](layer["norms"][2](x))
        return self.norms[1](x)


class HuggingFace(nn.Module):
    """An encoder-decoder of `transformers` of the same sizes, made from its config: BART or T5."""

    def __init__(
        self, config: TransformerConfig, seed: int = 0, kind: str = "BART", **options: object
    ):
        import transformers  # a benchmark-only dependency

        super().__init__()
        self.config, self.vocab, c = config, Vocab(config.symbols), config
        ids = {"pad_token_id": Vocab.pad, "bos_token_id": Vocab.bos, "eos_token_id": Vocab.eos}
        both = {"vocab_size": len(self.vocab), "d_model": c.d_model, "use_cache": False, **ids}
        if kind == "BART":
            sides = {"layers": c.n_layers, "attention_heads": c.n_heads, "ffn_dim": c.d_ff}
            sides = {f"{s}_{k}": v for s in ("encoder", "decoder") for k, v in sides.items()}
            longest = {"max_position_embeddings": c.max_length + 2, "dropout": 0.0}
            own = transformers.BartConfig(**both, **sides, **longest, **options)
            make = transformers.BartForConditionalGeneration
        else:
            sizes = {"d_kv": c.d_model // c.n_heads, "d_ff": c.d_ff, "dropout_rate": 0.0}
            counts = {"num_layers": c.n_layers, "num_heads": c.n_heads}
            own = transformers.T5Config(**both, **sizes, **counts, **options)
            make = transformers.T5ForConditionalGeneration
        torch.manual_seed(seed)
        self.model = make(own)

    def forward(self, source: Tensor, decoder_input: Tensor) -> Tensor:
        mask = (source != Vocab.pad).long()
        given = {"input_ids": source, "attention_mask": mask, "decoder_input_ids": decoder_input}
        return self.model(**given).logits


class XTransformers(nn.Module):
    """`x_transformers.XTransformer` of the same sizes, with what its own defaults add."""

    def __init__(self, config: TransformerConfig, seed: int = 0, **options: object):
        from x_transformers import XTransformer  # a benchmark-only dependency

        super().__init__()
        self.config, self.vocab = config, Vocab(config.symbols)
        torch.manual_seed(seed)
        both = {
            "num_tokens": len(self.vocab),
            "depth": config.n_layers,
            "heads": config.n_heads,
            "attn_dim_head": config.d_model // config.n_heads,
            "ff_mult": config.d_ff // config.d_model,
            "max_seq_len": config.max_length + 2,
            **options,
        }
        sides = {f"{side}_{name}": value for side in ("enc", "dec") for name, value in both.items()}
        self.model = XTransformer(dim=config.d_model, tie_token_emb=True, **sides)

    def forward(self, source: Tensor, decoder_input: Tensor) -> Tensor:
        mask = source != Vocab.pad
        memory = self.model.encoder(source, mask=mask, return_embeddings=True)
        return self.model.decoder.net(decoder_input, context=memory, context_mask=mask)

    def generate(self, source: Tensor, steps: int) -> Tensor:
        """Its own cached greedy decoding, of exactly `steps` symbols."""
        bos = source.new_full((len(source), 1), Vocab.bos)
        mask = source != Vocab.pad
        return self.model.generate(source, bos, steps, mask=mask, temperature=0.0)
