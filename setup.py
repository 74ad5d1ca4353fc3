"""An ament_python package for colcon, and an ordinary one for pip."""

from glob import glob

from setuptools import find_packages, setup

PACKAGE = "dust3r_ros"

setup(
    name=PACKAGE,
    version="0.1.0",
    description="Camera images in; poses, dense depth and a growing 3D map out: on ROS 2, or over a bag or a folder of pictures",
    author="The dust3r_ros developers",
    maintainer="The dust3r_ros developers",
    maintainer_email="dust3r_ros@users.noreply.github.com",
    license="Apache-2.0",
    packages=[*find_packages(include=[PACKAGE, f"{PACKAGE}.*"]), f"{PACKAGE}.kernels.cuda"],
    package_dir={f"{PACKAGE}.kernels.cuda": "kernels"},
    package_data={
        PACKAGE: ["py.typed"],
        f"{PACKAGE}.kernels.cuda": ["*.cu", "*.cuh"],
        f"{PACKAGE}.models": ["*.safetensors", "*.json", "*.md"],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        (f"share/{PACKAGE}/launch", sorted(glob("launch/*.launch.py"))),
        (f"share/{PACKAGE}/config", sorted(glob("config/*.*"))),
        (f"share/{PACKAGE}/config/train", sorted(glob("config/train/*.yaml"))),
    ],
    python_requires=">=3.10",
    install_requires=[
        "torch",
        "numpy",
        "scipy",
        "numba",  # compiles the alignment's inner loops
        "threadpoolctl",
        "opencv-python-headless>=4.5,<5",
        "pillow",
        "pyyaml",
        "matplotlib",  # the report's pictures
        "rosbags",
        "trimesh",
        "safetensors",
        "huggingface_hub>=0.34,<1",  # 1.0 and newer start anew after a download that was killed
        "typer",
        "rich",
    ],
    extras_require={
        "cuda": ["cuda-core[cu13]"],  # compiles the kernels for the GPU that is there
        "mesh": ["open3d"],
        "evaluation": ["evo"],
        "test": ["pytest", "pytest-xdist", "hypothesis", "evo", "scikit-image", "import-linter", "cuda-core[cu13]"],
        "dev": ["ruff", "mypy", "import-linter", "scipy-stubs", "types-PyYAML"],
    },
    entry_points={
        "console_scripts": [
            "dust3r_node = dust3r_ros.ros.main:main",
            "dust3r_ros = dust3r_ros.cli:main",
        ],
    },
    zip_safe=False,
)
