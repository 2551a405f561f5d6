# Run by the build in its own folder: writes face_viewer.js and its licence into FOLDER, or says why not.
file(COPY ${SOURCES} DESTINATION .)
set(quiet --no-audit --no-fund --no-update-notifier --loglevel=error)
foreach(arguments "ci;--ignore-scripts;${quiet}" "run;build;--;--outfile=${FOLDER}/face_viewer.js")
  execute_process(
    COMMAND "${NPM}" ${arguments}
    RESULT_VARIABLE status
    OUTPUT_VARIABLE output
    ERROR_VARIABLE output)
  if(NOT status EQUAL 0)
    message("${output}\nThe web page will have no 3D view: npm failed (${status}).")
    return()
  endif()
endforeach()
configure_file(node_modules/three/LICENSE "${FOLDER}/face_viewer.LICENSE" COPYONLY)
