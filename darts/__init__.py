"""The search method: the search space, the alpha gradients and the bilevel step, and the memory that a search takes."""
