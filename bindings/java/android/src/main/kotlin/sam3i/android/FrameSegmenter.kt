package sam3i.android

import android.graphics.ImageFormat
import android.graphics.PixelFormat
import androidx.camera.core.ImageAnalysis
import androidx.camera.core.ImageProxy
import sam3i.Image
import sam3i.Result
import sam3i.Segmenter

/**
 * Segments what the camera shows. Give it to `ImageAnalysis.setAnalyzer` with an executor of its own and the strategy
 * `STRATEGY_KEEP_ONLY_LATEST`: the next frame is then the newest one, and those between are dropped.
 *
 * @param onResult gets each answer, in pixels of the upright frame, on the analyzer's thread; it is closed afterwards.
 * @param onError gets what was refused or failed; the next frame is tried again.
 */
class FrameSegmenter(
    private val segmenter: Segmenter,
    private val onResult: (Result) -> Unit,
    private val onError: (RuntimeException) -> Unit,
) : ImageAnalysis.Analyzer {
    /** What to segment; null leaves frames alone. */
    @Volatile
    var instruction: String? = null

    override fun analyze(frame: ImageProxy) {
        frame.use {
            val asked = instruction ?: return
            try {
                segmenter.segment(image(frame), asked).use(onResult)
            } catch (error: RuntimeException) {
                onError(error)
            }
        }
    }

    /** The planes are read in place, and only until the frame is closed. */
    private fun image(frame: ImageProxy): Image {
        val planes = frame.planes
        val lying = when (frame.format) {
            ImageFormat.YUV_420_888 -> Image.yuv420(
                planes[0].buffer, planes[1].buffer, planes[2].buffer, frame.width, frame.height,
                planes[0].rowStride.toLong(), planes[1].rowStride.toLong(), planes[1].pixelStride,
            )
            PixelFormat.RGBA_8888 -> Image.of(
                planes[0].buffer, frame.width, frame.height, Image.Format.RGBA, planes[0].rowStride.toLong(),
            )
            else -> throw IllegalArgumentException(
                "frames have the format ${frame.format}: ask ImageAnalysis for YUV_420_888 or RGBA_8888",
            )
        }
        return lying.rotated(frame.imageInfo.rotationDegrees)
    }
}
