// A program that says that it can go on in a server's place, and then cannot (upgrade_test).
#include <cstring>

int main(int argc, char** argv) {
  return argc > 1 && std::strncmp(argv[1], "--can-take-over", 15) == 0 ? 0 : 1;
}
