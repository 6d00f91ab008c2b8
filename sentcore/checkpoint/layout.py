"""What a model folder looks like, as data."""

CONFIG = "config.json"
MODULES = "modules.json"
SENTENCE_CONFIG = "config_sentence_transformers.json"
ADAPTER_CONFIG = "adapter_config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
VOCABULARY = "vocab.txt"
SAFETENSORS = "model.safetensors"
SAFETENSORS_INDEX = "model.safetensors.index.json"
TORCH_WEIGHTS = "pytorch_model.bin"
SPARSE_LINEAR = "sparse_linear.pt"
COLBERT_LINEAR = "colbert_linear.pt"
SPECIAL_TOKENS = "special_tokens_map.json"

# The first that exists is read.
TRANSFORMER_CONFIGS = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)

TOKENIZER_FILES = (
    TOKENIZER,
    TOKENIZER_CONFIG,
    VOCABULARY,
    SPECIAL_TOKENS,
    "added_tokens.json",
)

# What is asked of the hub: nothing that could be run, no second copy of the weights.
HUB_PATTERNS = (
    "*.json",
    "*.txt",
    "model*.safetensors",
    "*/model.safetensors",
    TORCH_WEIGHTS,
    "*/" + TORCH_WEIGHTS,
    SPARSE_LINEAR,
    COLBERT_LINEAR,
)

# Three generations of names for the same modules.
_GENERATIONS = {
    "Transformer": (
        "sentence_transformers.models.Transformer",
        "sentence_transformers.base.modules.transformer.Transformer",
        "sentence_transformers.sentence_transformer.modules.transformer.Transformer",
    ),
    "Pooling": (
        "sentence_transformers.models.Pooling",
        "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
        "sentence_transformers.base.modules.pooling.Pooling",
    ),
    "Dense": (
        "sentence_transformers.models.Dense",
        "sentence_transformers.base.modules.dense.Dense",
        "sentence_transformers.sentence_transformer.modules.dense.Dense",
    ),
    "Normalize": (
        "sentence_transformers.models.Normalize",
        "sentence_transformers.sentence_transformer.modules.normalize.Normalize",
        "sentence_transformers.base.modules.normalize.Normalize",
    ),
    "MLMTransformer": (
        "sentence_transformers.sparse_encoder.models.MLMTransformer",
        "sentence_transformers.sparse_encoder.models.MLMTransformer.MLMTransformer",
        "sentence_transformers.sparse_encoder.modules.mlm_transformer.MLMTransformer",
        "sentence_transformers.sparse_encoder.modules.MLMTransformer",
    ),
    "SpladePooling": (
        "sentence_transformers.sparse_encoder.models.SpladePooling",
        "sentence_transformers.sparse_encoder.models.SpladePooling.SpladePooling",
        "sentence_transformers.sparse_encoder.modules.splade_pooling.SpladePooling",
        "sentence_transformers.sparse_encoder.modules.SpladePooling",
    ),
}
TRANSFORMER_TYPE = _GENERATIONS["Transformer"][1]  # what newer cross-encoders are written with
MODULE_KINDS = {name: kind for kind, names in _GENERATIONS.items() for name in names}
LEGACY_MODULE_TYPE = {kind: names[0] for kind, names in _GENERATIONS.items()}

# Legacy pooling flags in the order in which several are concatenated.
POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}

# The dotted names a Dense config may hold; they are looked up here and never imported.
ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.GELU": "gelu",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
    "torch.nn.modules.activation.SiLU": "silu",
}
