"""How long an image takes from one process to another over ROS 2, and how many are lost on the way.

    .venv-ros/bin/python benchmarks/ros_hop.py [--frames 100] [--rate 10]

Publishes rgb8 images of 640 x 480 and 1280 x 720 from one process and takes them in another, reliable and
best effort, by Fast DDS's transports as they are, by shared memory whose segment holds whole images, and by
UDP alone. The time begins before `publish` and ends in the callback; both read the same monotonic clock.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

import numpy as np

SIZES = ((640, 480), (1280, 720))
SETTINGS = {
    "as it is": {},
    "LARGE_DATA": {"FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA"},
    "images.xml": {"FASTDDS_DEFAULT_PROFILES_FILE": "PROFILE"},
    "UDP alone": {"FASTDDS_BUILTIN_TRANSPORTS": "UDPv4"},
}


def main() -> None:
    """Runs every setting, or one side of one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--rate", type=float, default=10.0)
    parser.add_argument("--side", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        return side(asked)
    profile = os.path.join(os.path.dirname(__file__), "../ros/sam3i_ros/config/fastdds_images.xml")
    print("| image | transport | reliability | came | median ms | 90 % | largest |")
    print("|---|---|---|---|---|---|---|")
    for width, height in SIZES:
        for name, setting in SETTINGS.items():
            for reliability in ("reliable", "best effort"):
                variables = {key: value.replace("PROFILE", profile) for key, value in setting.items()}
                times = hop(asked, width, height, reliability, {**os.environ, **variables})
                row = f"| {width} x {height} | {name} | {reliability} | {len(times)} of {asked.frames} "
                if len(times):
                    row += "".join(f"| {np.percentile(times, q):.1f} " for q in (50, 90, 100))
                print(row + "|", flush=True)


def hop(
    asked: argparse.Namespace, width: int, height: int, reliability: str, variables: dict[str, str]
) -> np.ndarray:
    """Milliseconds of each image that came."""
    common = [sys.executable, __file__, "--frames", str(asked.frames), "--rate", str(asked.rate), "--side"]
    common += [str(width), str(height), reliability]
    taker = subprocess.Popen([*common, "take"], stdout=subprocess.PIPE, text=True, env=variables)
    subprocess.run([*common, "give"], env=variables, check=True)
    printed, _ = taker.communicate()
    return np.array([float(line) for line in printed.split()])


def side(asked: argparse.Namespace) -> None:
    """Publishes, or takes and prints the milliseconds."""
    import rclpy
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import Image

    width, height = map(int, asked.side[:2])
    reliable = asked.side[2] == "reliable"
    qos = QoSProfile(
        depth=1, reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
    )
    rclpy.init()
    node = rclpy.create_node("hop_" + asked.side[3])
    if asked.side[3] == "give":
        publisher = node.create_publisher(Image, "hop", qos)
        while not publisher.get_subscription_count():
            time.sleep(0.05)
        time.sleep(0.5)
        message = Image(height=height, width=width, step=3 * width, encoding="rgb8")
        message.data = bytes(3 * width * height)
        for number in range(asked.frames + 1):  # the last one ends the other side
            message.header.frame_id = "end" if number == asked.frames else ""
            now = time.monotonic_ns()
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(now, 10**9)
            publisher.publish(message)
            time.sleep(1 / asked.rate)
        time.sleep(1)
    else:
        ended, last = [], time.monotonic()

        def take(message: Image) -> None:
            nonlocal last
            now, last = time.monotonic_ns(), time.monotonic()
            if message.header.frame_id:
                ended.append(True)
                return
            stamp = message.header.stamp
            print((now - stamp.sec * 10**9 - stamp.nanosec) / 1e6)

        node.create_subscription(Image, "hop", take, qos)
        while not ended and time.monotonic() - last < 8:
            rclpy.spin_once(node, timeout_sec=0.5)
    rclpy.shutdown()


if __name__ == "__main__":
    main()
