"""The LDP model library: blur maps and networks for dual-pixel deblurring."""
