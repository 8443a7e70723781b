# What gets installed: the libraries, the public headers, and a package configuration that finds both relative to
# itself, so that the tree may be moved. The wheel is the same tree under pagedcore/ (see pyproject.toml).
include(CMakePackageConfigHelpers)
set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/pagedcore")

if(SKBUILD)
  set(namelink NAMELINK_SKIP)  # wheels hold no symlinks; find_package() knows the library by its SONAME
endif()
install(TARGETS pagedcore pagedcore_c EXPORT pagedcoreTargets
  LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}" ${namelink}
  ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(DIRECTORY "${PROJECT_SOURCE_DIR}/cpp/include/" "${PROJECT_BINARY_DIR}/include/"
  DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" FILES_MATCHING PATTERN "*.hpp" PATTERN "*.h")
install(EXPORT pagedcoreTargets NAMESPACE pagedcore:: DESTINATION "${package_dir}")

configure_package_config_file("${CMAKE_CURRENT_LIST_DIR}/pagedcoreConfig.cmake.in"
  "${PROJECT_BINARY_DIR}/pagedcoreConfig.cmake" INSTALL_DESTINATION "${package_dir}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/pagedcoreConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/pagedcoreConfig.cmake" "${PROJECT_BINARY_DIR}/pagedcoreConfigVersion.cmake"
  DESTINATION "${package_dir}")

if(NOT SKBUILD)
  file(RELATIVE_PATH PAGEDCORE_PC_PREFIX "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
  configure_file("${CMAKE_CURRENT_LIST_DIR}/pagedcore.pc.in" "${PROJECT_BINARY_DIR}/pagedcore.pc" @ONLY)
  install(FILES "${PROJECT_BINARY_DIR}/pagedcore.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
endif()
