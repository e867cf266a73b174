/**
 * Segments the camera's frame of an immersive-ar session, where the device gives one ("camera-access", Chrome on
 * Android). Not run on hardware: it was type-checked alone.
 */
import {Segmenter, type Result} from "@sam3i/web";

/** Not in the types of WebXR: https://immersive-web.github.io/raw-camera-access/ */
interface CameraView extends XRView {
  readonly camera?: {readonly width: number; readonly height: number};
}
interface CameraBinding extends XRWebGLBinding {
  getCameraImage(camera: NonNullable<CameraView["camera"]>): WebGLTexture;
}

/** A camera's frame, upright: WebGL reads it from the bottom up. */
function readFrame(gl: WebGL2RenderingContext, texture: WebGLTexture, width: number, height: number): ImageData {
  const buffer = gl.createFramebuffer(), pixels = new Uint8Array(width * height * 4);
  gl.bindFramebuffer(gl.FRAMEBUFFER, buffer);
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
  gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
  gl.deleteFramebuffer(buffer);
  const upright = new ImageData(width, height);
  for (let y = 0; y < height; y++) {
    upright.data.set(pixels.subarray((height - 1 - y) * width * 4, (height - y) * width * 4), y * width * 4);
  }
  return upright;
}

/**
 * Starts a session, from a click, and calls back with each result until the session ends.
 *
 * @param overlay - shown over the camera's picture; `onResult` may draw into it.
 * @throws Error - the device gives no immersive-ar session, or none with its camera's frames.
 */
export async function segmentInAr(
  segmenter: Segmenter, instruction: string, overlay: HTMLElement, onResult: (result: Result) => void,
): Promise<XRSession> {
  if (!await navigator.xr?.isSessionSupported("immersive-ar")) {
    throw new Error("this device gives no immersive-ar session: use Chrome on an Android phone with ARCore");
  }
  const session = await navigator.xr!.requestSession("immersive-ar", {
    requiredFeatures: ["camera-access", "dom-overlay"], domOverlay: {root: overlay},
  });
  const gl = document.createElement("canvas").getContext("webgl2", {xrCompatible: true})!;
  const binding = new XRWebGLBinding(session, gl) as CameraBinding;
  await session.updateRenderState({baseLayer: new XRWebGLLayer(session, gl)});
  const space = await session.requestReferenceSpace("viewer");
  let busy = false; // frames that come meanwhile are not taken

  const onFrame = (_time: number, frame: XRFrame) => {
    session.requestAnimationFrame(onFrame);
    const camera = (frame.getViewerPose(space)?.views[0] as CameraView | undefined)?.camera;
    if (busy || !camera) return;
    busy = true;
    // The texture lives for this callback alone.
    const pixels = readFrame(gl, binding.getCameraImage(camera), camera.width, camera.height);
    void (async () => {
      try {
        const scene = await segmenter.encode(pixels);
        onResult(await scene.segment(instruction));
        scene.close();
      } finally {
        busy = false;
      }
    })();
  };
  session.requestAnimationFrame(onFrame);
  return session;
}
