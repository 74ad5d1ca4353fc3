"""What is shipped inside the package: the weights of `dust3r_nano`, its model card, and the figures that it was shipped with."""
