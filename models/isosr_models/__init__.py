"""Networks, losses, training objectives, restorers and model folders; PyTorch only."""
