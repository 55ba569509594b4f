"""Training the fastai way: the blocks and loaders, the learner, and one call for all of it."""
