"""A camera over RTSP: `/usr/bin/python3 rtsp_server.py FOLDER FPS PORT`, with Debian's gir1.2-gst-rtsp-server-1.0.

The folder holds one file per picture, 00000.h264 and so on, which are played in a loop. All clients see one camera.
"""

import itertools
import sys
from pathlib import Path

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

Gst.init(None)
folder, fps, port = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
pictures = [path.read_bytes() for path in sorted(folder.glob("*.h264"))]
FORM = f"video/x-h264,stream-format=byte-stream,alignment=au,framerate={fps}/1"


def configure(_, media):
    """Give a medium its pictures, as it asks for them."""
    numbers = itertools.count()

    def need_data(source, _):
        number = next(numbers)
        buffer = Gst.Buffer.new_wrapped(pictures[number % len(pictures)])
        buffer.pts = buffer.dts = number * Gst.SECOND // fps
        buffer.duration = Gst.SECOND // fps
        source.emit("push-buffer", buffer)

    media.get_element().get_by_name("camera").connect("need-data", need_data)


factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(
    f"( appsrc name=camera format=time is-live=false max-bytes=1 caps={FORM} ! h264parse ! "
    "rtph264pay name=pay0 pt=96 config-interval=-1 )"
)
factory.set_shared(True)
factory.connect("media-configure", configure)
server = GstRtspServer.RTSPServer()
server.set_service(port)
server.get_mount_points().add_factory("/camera", factory)
server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
