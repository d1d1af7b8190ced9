# bulkhead_host_program(TARGET FILE): one program from FILE and what the comments in its first 4 KiB name:
#   /* SOURCES: path path */   sources to link, from the repository root
#   /* LIBS: name */           libraries
#   /* FLAGS: flag */          compiler flags for FILE alone
#   /* INCLUDE_FAKES */        tests/unit/fakes.c
# Sets BULKHEAD_PROGRAM_ERROR to a text when a source is missing (no target is made then), else to the empty string: a
# broken file of one part must not keep the others from being built and tested.

# The words after KEYWORD: in a comment of CONTENT, as a list.
function(_bulkhead_comment_words content keyword out)
  set(words "")
  if(content MATCHES "/\\*[ \t\n*]*${keyword}:")
    string(FIND "${content}" "${keyword}:" start)
    string(SUBSTRING "${content}" ${start} -1 content)
    string(FIND "${content}" "*/" end)
    string(LENGTH "${keyword}:" skip)
    math(EXPR length "${end} - ${skip}")
    if(length GREATER 0)
      string(SUBSTRING "${content}" ${skip} ${length} content)
      string(REGEX MATCHALL "[^ \t\r\n*]+" words "${content}")
    endif()
  endif()
  set(${out} "${words}" PARENT_SCOPE)
endfunction()

function(bulkhead_host_program target file)
  # The comments decide the build, so an edit of the file has to configure again.
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
  file(READ ${file} content LIMIT 4096)
  _bulkhead_comment_words("${content}" SOURCES sources)
  _bulkhead_comment_words("${content}" LIBS libraries)
  _bulkhead_comment_words("${content}" FLAGS flags)
  if(content MATCHES "/\\* *INCLUDE_FAKES *\\*/")
    list(APPEND sources tests/unit/fakes.c)
  endif()

  set(missing "")
  list(TRANSFORM sources PREPEND ${CMAKE_SOURCE_DIR}/)
  foreach(source ${sources})
    if(NOT EXISTS ${source})
      file(RELATIVE_PATH source ${CMAKE_SOURCE_DIR} ${source})
      list(APPEND missing ${source})
    endif()
  endforeach()
  if(missing)
    file(RELATIVE_PATH file ${CMAKE_SOURCE_DIR} ${file})
    list(JOIN missing " " missing)
    set(BULKHEAD_PROGRAM_ERROR "${file}: SOURCES names what does not exist: ${missing}" PARENT_SCOPE)
    return()
  endif()
  set(BULKHEAD_PROGRAM_ERROR "" PARENT_SCOPE)

  add_executable(${target} ${file} ${sources})
  # cmocka's callbacks have a parameter that hardly any test uses.
  set_source_files_properties(${file} PROPERTIES COMPILE_OPTIONS "-Wno-unused-parameter;${flags}")
  target_link_libraries(${target} PRIVATE shared_host ${libraries})
endfunction()

# A test in place of a program that cannot be built: it fails and says why.
function(bulkhead_broken_test name label message)
  message(WARNING "${message}")
  add_test(NAME ${name} COMMAND sh -c "echo '${message}' >&2; exit 1")
  set_tests_properties(${name} PROPERTIES LABELS ${label})
endfunction()
