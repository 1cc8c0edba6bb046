"""Detectors of objects: ONNX files of many families, and OpenCV's detector of people."""
