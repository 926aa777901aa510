"""Images larger than memory: a network on overlapping tiles, with the result of one run.

    net = convdsl.tiled("unet", "unet.safetensors", tile=572)
    map = net(image)                     # [N, 1, H, W] -> [N, 2, H, W]

Ronneberger, Fischer, Brox 2015, "U-Net", figure 2: the overlap-tile strategy. Where tiles may begin
and what is kept of each is found by comparing the arithmetic of two graphs (`agreement`), for
any network, and refused with the reason where no tiles give the result of the whole.
"""
