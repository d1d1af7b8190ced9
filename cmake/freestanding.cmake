# bulkhead_image(TARGET LINKER_SCRIPT): an executable without a C library, linked by LINKER_SCRIPT, that uses no vector
# registers and no red zone (interrupts and guests share the CPU with it). It lands in ${CMAKE_BINARY_DIR}/images.
set(BULKHEAD_FREESTANDING -ffreestanding -fno-pic -fno-pie -mno-red-zone -mgeneral-regs-only
    -fno-stack-protector -fno-asynchronous-unwind-tables -fno-strict-aliasing -fcf-protection=none)

function(bulkhead_image target linker_script)
  target_compile_options(${target} PRIVATE ${BULKHEAD_FREESTANDING})
  target_link_options(${target} PRIVATE -nostdlib -static -no-pie -Wl,--build-id=none -Wl,-z,max-page-size=4096
      -Wl,-z,noexecstack -Wl,--no-warn-rwx-segments -T ${linker_script})
  set_target_properties(${target} PROPERTIES LINK_DEPENDS ${linker_script}
      RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/images)
endfunction()
