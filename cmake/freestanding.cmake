# bulkhead_image(TARGET LINKER_SCRIPT): an executable without a C library, linked by LINKER_SCRIPT, that uses no vector
# registers and no red zone (interrupts and guests share the CPU with it). What boots lands in ${CMAKE_BINARY_DIR}/images,
# the same with debug information, for gdb, in ${CMAKE_BINARY_DIR}/debug.
set(BULKHEAD_FREESTANDING -ffreestanding -fno-pic -fno-pie -mno-red-zone -mgeneral-regs-only
    -fno-stack-protector -fno-asynchronous-unwind-tables -fno-strict-aliasing -fcf-protection=none)

function(bulkhead_image target linker_script)
  target_compile_options(${target} PRIVATE ${BULKHEAD_FREESTANDING})
  target_link_options(${target} PRIVATE -nostdlib -static -no-pie -Wl,--build-id=none -Wl,-z,max-page-size=4096
      -Wl,-z,noexecstack -Wl,--no-warn-rwx-segments -T ${linker_script})
  set_target_properties(${target} PROPERTIES LINK_DEPENDS ${linker_script}
      RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/debug)
  set(image ${CMAKE_BINARY_DIR}/images/${target})
  add_custom_command(TARGET ${target} POST_BUILD BYPRODUCTS ${image}
      COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/images
      COMMAND ${CMAKE_OBJCOPY} --strip-debug $<TARGET_FILE:${target}> ${image} VERBATIM)
endfunction()
