"""What options accept, named again here so that --help does not wait for torch; a test compares them with the library's."""

DTYPES = ("auto", "float32", "bfloat16", "float16", "int8", "fp8")
PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")
CHUNK_MODES = ("mean", "max")
BACKENDS = ("auto", "native", "reference")
ATTRIBUTION_METHODS = ("auto", "exact", "integrated_gradients")
ON_ERROR = ("fail", "skip", "null")
INPUT_KINDS = (".txt", ".jsonl", ".ndjson", ".csv", ".parquet")
OUTPUT_KINDS = (".npy", ".jsonl", ".parquet")
INDEX_TYPES = ("exact", "faiss")
