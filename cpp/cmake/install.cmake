# What `cmake --install` puts down for C++ users: library, headers, CMake package, pkg-config file.
install(
  TARGETS threedfa
  EXPORT threedfaTargets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY cpp/include/threedfa DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

set(threedfa_cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/threedfa)
install(
  EXPORT threedfaTargets
  NAMESPACE threedfa::
  FILE threedfaTargets.cmake
  DESTINATION ${threedfa_cmake_dir})
configure_package_config_file(cpp/cmake/threedfaConfig.cmake.in
                              ${PROJECT_BINARY_DIR}/threedfaConfig.cmake
                              INSTALL_DESTINATION ${threedfa_cmake_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/threedfaConfigVersion.cmake
                                 COMPATIBILITY SameMajorVersion)
install(FILES ${PROJECT_BINARY_DIR}/threedfaConfig.cmake
              ${PROJECT_BINARY_DIR}/threedfaConfigVersion.cmake
        DESTINATION ${threedfa_cmake_dir})

configure_file(cpp/cmake/threedfa.pc.in ${PROJECT_BINARY_DIR}/threedfa.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/threedfa.pc
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
