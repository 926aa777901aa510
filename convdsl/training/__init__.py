"""Training: the graph of one step, and what runs it again and again.

A step is a model like any other (`step.training_step`): the network as it is in training, its
losses, their gradients, and what replaces the weights and the optimiser's slots afterwards, as
updates of states. So it is folded, fused, planned and compiled as inference is. A `Session` owns
the states and calls the step; `loop` feeds it a data set, epoch by epoch, measures, and keeps a
checkpoint that is always whole. Nothing in this room knows which machine runs a step.
"""
