# What `cmake --install` puts down for C++ users: library, headers, CMake package, pkg-config file.
install(
  TARGETS threedfa
  EXPORT threedfaTargets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY cpp/include/threedfa DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DATAROOTDIR}/licenses/threedfa)

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
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/threedfaConfig.cmake
              ${PROJECT_BINARY_DIR}/threedfaConfigVersion.cmake
        DESTINATION ${threedfa_cmake_dir})

# The pkg-config file finds everything from its own place, so that the installed tree can be moved;
# folders given as absolute paths stay where they are.
set(threedfa_pc_dir ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig)
file(RELATIVE_PATH threedfa_pc_prefix ${threedfa_pc_dir} ${CMAKE_INSTALL_PREFIX})
string(REGEX REPLACE "/$" "" threedfa_pc_prefix "${threedfa_pc_prefix}")
foreach(dir IN ITEMS LIBDIR INCLUDEDIR)
  string(TOLOWER ${dir} name)
  if(IS_ABSOLUTE ${CMAKE_INSTALL_${dir}})
    set(threedfa_pc_${name} ${CMAKE_INSTALL_${dir}})
  else()
    set(threedfa_pc_${name} "\${prefix}/${CMAKE_INSTALL_${dir}}")
  endif()
endforeach()
configure_file(cpp/cmake/threedfa.pc.in ${PROJECT_BINARY_DIR}/threedfa.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/threedfa.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
