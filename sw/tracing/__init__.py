"""How a torch model becomes a graph: traced with torch.fx, walked node by node, every problem kept with its place."""
