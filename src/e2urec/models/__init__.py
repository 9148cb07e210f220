"""Language models as recommenders: loading, answers, batches, adapters."""
