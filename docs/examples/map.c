/* Adds up the bytes of a file without copying one:
 *   cc map.c -o map $(pkg-config --cflags --libs pkramfs) && ./map /srv/cache/models/w.bin */
#include <fcntl.h>
#include <pkramfs.h>
#include <stdio.h>
#include <sys/mman.h>

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: map FILE\n");
    return 2;
  }
  int fd = open(argv[1], O_RDONLY);
  if (fd < 0) {
    perror(argv[1]);
    return 1;
  }
  int how = 0;
  unsigned char *bytes = pkramfs_map(fd, 0, 0, &how);
  if (bytes == MAP_FAILED) {
    perror("pkramfs_map");
    return 1;
  }
  unsigned long long sum = 0;
  for (size_t i = 0; i < pkramfs_length(bytes); ++i) sum += bytes[i];
  printf("%llu, %s%s\n", sum, how == PKRAMFS_OWN_PAGES ? "the region's own pages" : "ordinary: ",
         pkramfs_why());
  return pkramfs_unmap(bytes) == 0 ? 0 : 1;
}
