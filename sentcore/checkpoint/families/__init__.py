"""One file a model family: config.json's model_type -> its module. Adding a family is adding a file and a line here."""

from sentcore.checkpoint.families import bert

FAMILIES = {"bert": bert}
