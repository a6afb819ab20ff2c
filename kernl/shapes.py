"""The only place where the sizes of real models are written.

A `ModelShape` is what a model's configuration says of its matrices; a `Workload` is what a user
sends it. Operators turn the two into the dims of their cases, so that the suite measures what
models run. `tests/test_shapes.py` holds each row against the configuration class of transformers.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelShape:
    """Sizes of one transformer.

    Attributes:
        name: the model's name on the Hugging Face hub, without its owner.
        hidden: width of the residual stream.
        heads: query heads of one attention layer.
        intermediate: width inside the MLP.
        vocabulary: rows of the token embedding.
        activation: what the MLP applies, as `kernl.ops.linear` names it.
        bias: whether the linear layers add a bias.
        kv_heads: key and value heads, fewer than `heads` in grouped-query attention.
        head_dim: width of one attention head.
        norm: "layer" for layer normalisation, "rms" for root mean square normalisation.
        gated: whether the MLP multiplies its activation with a second projection.
        causal: whether a token sees only those before it: the model decodes.
        rope: whether queries and keys are rotated by their positions.
        frames: tokens of every call of an encoder that hears, whatever is said; 0 for text.
        mel_bins: channels of what it hears, at twice as many positions; 0 for text.
        transposed: whether linear layers keep their weights as (inputs, outputs).
    """

    name: str
    hidden: int
    heads: int
    intermediate: int
    vocabulary: int
    activation: str
    bias: bool = True
    kv_heads: int = 0
    head_dim: int = 0
    norm: str = "layer"
    gated: bool = False
    causal: bool = False
    rope: bool = False
    frames: int = 0
    mel_bins: int = 0
    transposed: bool = False

    def __post_init__(self) -> None:
        # What most models leave unsaid: as many key heads as heads, which share the width evenly.
        object.__setattr__(self, "kv_heads", self.kv_heads or self.heads)
        object.__setattr__(self, "head_dim", self.head_dim or self.hidden // self.heads)


@dataclass(frozen=True)
class Workload:
    """One call of a model: `batch` sequences of `seq` tokens each."""

    batch: int
    seq: int

    @property
    def tokens(self) -> int:
        """Rows that every linear layer sees."""
        return self.batch * self.seq


BERT_BASE = ModelShape("bert-base-uncased", 768, 12, 3072, 30522, "gelu")
BERT_LARGE = ModelShape("bert-large-uncased", 1024, 16, 4096, 30522, "gelu")
ROBERTA_BASE = ModelShape("roberta-base", 768, 12, 3072, 50265, "gelu")
DISTILBERT = ModelShape("distilbert-base-uncased", 768, 12, 3072, 30522, "gelu")
MINILM = ModelShape("all-MiniLM-L6-v2", 384, 12, 1536, 30522, "gelu")
GPT2 = ModelShape("gpt2", 768, 12, 3072, 50257, "gelu_tanh", causal=True, transposed=True)


def _t5(name: str, hidden: int, heads: int, intermediate: int) -> ModelShape:
    """An encoder with RMS norms and without biases, and a relu between its linear layers."""
    return ModelShape(name, hidden, heads, intermediate, 32128, "relu", bias=False, norm="rms")


T5_SMALL = _t5("t5-small", 512, 8, 2048)
T5_BASE = _t5("t5-base", 768, 12, 3072)
T5_LARGE = _t5("t5-large", 1024, 16, 4096)


def _whisper(
    name: str, hidden: int, heads: int, vocabulary: int = 51865, mel_bins: int = 80
) -> ModelShape:
    """An encoder that hears 30 seconds at a time."""
    inner = 4 * hidden
    return ModelShape(
        name, hidden, heads, inner, vocabulary, "gelu", frames=1500, mel_bins=mel_bins
    )


WHISPER_TINY = _whisper("whisper-tiny", 384, 6)
WHISPER_BASE = _whisper("whisper-base", 512, 8)
WHISPER_SMALL = _whisper("whisper-small", 768, 12)
WHISPER_MEDIUM = _whisper("whisper-medium", 1024, 16)
WHISPER_LARGE = _whisper("whisper-large-v3", 1280, 20, vocabulary=51866, mel_bins=128)


def _llama_like(
    name: str,
    hidden: int,
    heads: int,
    intermediate: int,
    vocabulary: int,
    kv_heads: int,
    activation: str = "silu",
    head_dim: int = 0,
) -> ModelShape:
    """A decoder with rotary positions, grouped-query attention, RMS norms and a gated MLP."""
    return ModelShape(
        name,
        hidden,
        heads,
        intermediate,
        vocabulary,
        activation,
        bias=False,
        kv_heads=kv_heads,
        head_dim=head_dim,
        norm="rms",
        gated=True,
        causal=True,
        rope=True,
    )


TINY_LLAMA = _llama_like("TinyLlama-1.1B", 2048, 32, 5632, 32000, 4)
LLAMA_1B = _llama_like("Llama-3.2-1B", 2048, 32, 8192, 128256, 8)
LLAMA_2_7B = _llama_like("Llama-2-7b-hf", 4096, 32, 11008, 32000, 32)
LLAMA_3_8B = _llama_like("Meta-Llama-3-8B", 4096, 32, 14336, 128256, 8)
MISTRAL_7B = _llama_like("Mistral-7B-v0.1", 4096, 32, 14336, 32000, 8)
QWEN2_SMALL = _llama_like("Qwen2-0.5B", 896, 14, 4864, 151936, 2)
GEMMA_2B = _llama_like("gemma-2-2b", 2304, 8, 9216, 256000, 4, "gelu_tanh", head_dim=256)

MODELS: tuple[ModelShape, ...] = (
    BERT_BASE,
    BERT_LARGE,
    MINILM,
    T5_SMALL,
    WHISPER_BASE,
    GPT2,
    LLAMA_1B,
    MISTRAL_7B,
    TINY_LLAMA,
    ROBERTA_BASE,
    DISTILBERT,
    T5_BASE,
    T5_LARGE,
    WHISPER_TINY,
    WHISPER_SMALL,
    WHISPER_MEDIUM,
    WHISPER_LARGE,
    LLAMA_2_7B,
    LLAMA_3_8B,
    QWEN2_SMALL,
    GEMMA_2B,
)
"""The first of each kind come first: a shape that several have is named once, by the first."""

WORKLOADS: tuple[Workload, ...] = (
    Workload(1, 16),
    Workload(1, 128),
    Workload(1, 384),
    Workload(1, 512),
    Workload(8, 128),
    Workload(8, 512),
    Workload(32, 128),
    Workload(32, 512),
)
FEW_WORKLOADS: tuple[Workload, ...] = (Workload(1, 128), Workload(8, 512))
"""Of models like one that is measured with all of them."""
_WITH_ALL = MODELS[:9]


def workloads(model: ModelShape) -> tuple[Workload, ...]:
    """What is measured of a model: calls with text, and speech alone where it hears."""
    whole = model in _WITH_ALL
    speech = (Workload(1, model.frames), Workload(8, model.frames)) if model.frames else ()
    if whole:
        return (*WORKLOADS, *speech)
    return speech[:1] or FEW_WORKLOADS
