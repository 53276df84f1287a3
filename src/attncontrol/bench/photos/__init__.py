"""Pictures that exist, with the change that is asked of them and what it is measured by.

Measures of an edited picture, of 8 bits:

psnr        in dB to the *reference*: of true scenes the exact target, of a folder the picture
            itself. At most 58.9, the error of rounding to 8 bits, as all PSNR here
ssim        structural similarity of Wang et al. 2004, a Gaussian window of 11 pixels with a
            deviation of 1.5, mean over colours
mse         mean square of the difference of colours in 0 .. 1
..._inside  the same of the pixels that change: of true scenes those that differ between picture
            and exact target, of a folder those of its mask
..._outside of the others, where reference and picture are the same
..._unedited  of a folder, as PIE-Bench's evaluator has it: both pictures are black inside of the
            mask, and the mean is over all pixels, which raises every figure
"""
