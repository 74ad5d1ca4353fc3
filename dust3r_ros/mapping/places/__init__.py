"""Places known again: likeness of pictures, where a picture was taken, loops proposed."""
