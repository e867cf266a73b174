# ONNX Runtime from ORT_ROOT, the folder of a release, or from the system.
set(ORT_ROOT "" CACHE PATH "Folder of an ONNX Runtime release, with include/ and lib/")
find_path(onnxruntime_INCLUDE_DIR onnxruntime_cxx_api.h
  HINTS ${ORT_ROOT} PATH_SUFFIXES include include/onnxruntime include/onnxruntime/core/session)
find_library(onnxruntime_LIBRARY onnxruntime HINTS ${ORT_ROOT} PATH_SUFFIXES lib lib64)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(onnxruntime DEFAULT_MSG onnxruntime_LIBRARY onnxruntime_INCLUDE_DIR)
if(onnxruntime_FOUND AND NOT TARGET onnxruntime::onnxruntime)
  add_library(onnxruntime::onnxruntime UNKNOWN IMPORTED)
  set_target_properties(onnxruntime::onnxruntime PROPERTIES
    IMPORTED_LOCATION ${onnxruntime_LIBRARY} INTERFACE_INCLUDE_DIRECTORIES ${onnxruntime_INCLUDE_DIR})
endif()
mark_as_advanced(onnxruntime_INCLUDE_DIR onnxruntime_LIBRARY)
