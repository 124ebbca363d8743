# Programs that test the library and the filesystem in one process, by one thread (see CMakeLists.txt).

# The crash enumerator.
add_executable(crash_test crash/pairs_test.cc crash/regions_test.cc crash/registry_test.cc
  crash/steps.cc crash/steps_test.cc crash/takeover_test.cc)
target_include_directories(crash_test PRIVATE ${PROJECT_SOURCE_DIR})
target_compile_definitions(crash_test PRIVATE SOURCE_DIR="${PROJECT_SOURCE_DIR}")
target_link_libraries(crash_test PRIVATE fs GTest::gmock GTest::gtest_main)
pkramfs_optimized(crash_test)
gtest_discover_tests(crash_test DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 600)

# Random sequences that die; more: build/gcc/tests/crash_sequences --seed 1000 --sequences 1000
add_executable(crash_sequences crash/model.cc crash/operations.cc crash/sequences.cc)
target_include_directories(crash_sequences PRIVATE ${PROJECT_SOURCE_DIR})
target_link_libraries(crash_sequences PRIVATE fs GTest::gtest command_line)
pkramfs_optimized(crash_sequences)
if(PKRAMFS_IN_FULL)
  set(operations 2000)
  set(points 200)
else()
  set(first --operations 1000 --points 300)
  set(operations 1000)
  set(points 50)
endif()
add_test(NAME crash_sequences COMMAND crash_sequences ${first})
# One of the longest: it begins early.
set_tests_properties(crash_sequences PROPERTIES COST 500)
add_test(NAME crash_sequences_when_full COMMAND crash_sequences --seed 100 --sequences 2
  --operations ${operations} --points ${points} --pages 120)
add_test(NAME crash_sequences_when_others_fill_up COMMAND crash_sequences --seed 300 --sequences 2
  --operations ${operations} --points ${points} --crowded)
add_test(NAME crash_sequences_at_the_inode_limit COMMAND crash_sequences --seed 200
  --operations ${operations} --points ${points} --inodes 20)

# The same while checkpoints are made; more: build/gcc/tests/checkpoint_sequences --sequences 1000
add_executable(checkpoint_sequences crash/checkpoint_sequences.cc crash/model.cc crash/operations.cc)
target_include_directories(checkpoint_sequences PRIVATE ${PROJECT_SOURCE_DIR})
target_link_libraries(checkpoint_sequences PRIVATE fs GTest::gtest command_line)
pkramfs_optimized(checkpoint_sequences)
add_test(NAME checkpoint_sequences COMMAND checkpoint_sequences --operations ${operations})

# Hostile regions: what was found is replayed here, .ci/fuzz looks for more.
add_executable(fuzz_replay_test fuzz/replay_test.cc fuzz/requests.cc fuzz/targets.cc fuzz/trees.cc)
target_include_directories(fuzz_replay_test PRIVATE ${PROJECT_SOURCE_DIR})
target_compile_definitions(fuzz_replay_test PRIVATE SOURCE_DIR="${PROJECT_SOURCE_DIR}")
target_link_libraries(fuzz_replay_test PRIVATE mount_lib GTest::gtest_main)
target_precompile_headers(fuzz_replay_test REUSE_FROM precompiled)
gtest_discover_tests(fuzz_replay_test DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 600)
if(PKRAMFS_SANITIZE MATCHES fuzzer)
  foreach(target Open Streams Mount Survivors Requests Trees)
    string(TOLOWER fuzz_${target} name)
    add_executable(${name} fuzz/main.cc fuzz/requests.cc fuzz/targets.cc fuzz/trees.cc)
    target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
    target_compile_definitions(${name} PRIVATE FUZZ_TARGET=Fuzz${target})
    target_link_libraries(${name} PRIVATE mount_lib GTest::gtest)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
    # What is looked for is ways through the project, not through its tests.
    target_compile_options(${name} PRIVATE -fno-sanitize=fuzzer-no-link)
  endforeach()
endif()
