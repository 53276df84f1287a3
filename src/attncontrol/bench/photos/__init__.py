"""Pictures that exist, edited: inversions x editors, the suite ``photos`` of ``attncontrol bench``
and ``bench --pairs FOLDER``.

A cell is an inversion and an editor. The picture is inverted by its own prompt without
classifier-free guidance, or with that of the method; then the new prompt is drawn from the same
noise while the first image retraces the picture and the editor takes of its attention. Measures
per picture, of 8 bits:

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
shown, kept, both, iou  of true scenes, as ``bench.edit_suite`` has them
rebuilt     PSNR of the retraced picture to the picture
limit       the same of the picture encoded and decoded by the autoencoder: no inversion of latents
            can be better
evaluations rows that the network read, of the inversion, the retraced and the edited picture
            together; a branch of classifier-free guidance is a row of its own. Gradients, of null
            texts, are not counted
seconds     of the processor, of the clock on other devices, per picture, the inversion among them
"""
