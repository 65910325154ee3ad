"""Reading: the order of the samples, the workers, and any dataloader as a source of batches."""
