// A program that says that it can go on in a server's place, and then cannot, or hangs
// (upgrade_test).
#include <unistd.h>

#include <cstring>

int main(int argc, char** argv) {
  if (argc > 1 && std::strncmp(argv[1], "--can-take-over", 15) == 0) return 0;
#ifdef HANGS
  pause();
#endif
  return 1;
}
