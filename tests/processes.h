// Finds processes in /proc.
#ifndef TESTS_PROCESSES_H_
#define TESTS_PROCESSES_H_

#include <dirent.h>
#include <signal.h>
#include <sys/types.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "tests/eventually.h"

namespace pkramfs {

inline std::string WordsOf(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

// The state in the file `stat` of that directory of /proc.  0 when there is no such process.
inline char StateIn(const std::string& dir) {
  const std::string words = WordsOf(dir + "/stat");
  const size_t at = words.rfind(") ");
  return at == std::string::npos ? '\0' : words[at + 2];
}
inline char StateOf(pid_t pid) { return StateIn("/proc/" + std::to_string(pid)); }

// Whether the process has ended, even if nobody has asked for its status yet.
inline bool IsGone(pid_t pid) {
  const char state = StateOf(pid);
  return state == '\0' || state == 'Z';
}

// Stops a process.  A thread that has not stopped yet could still receive a request, so all threads
// have stopped when this returns.  False if the process is gone.
inline bool Stop(pid_t pid) {
  const std::string tasks = "/proc/" + std::to_string(pid) + "/task";
  return kill(pid, SIGSTOP) == 0 && Eventually([&] {
           DIR* const dir = opendir(tasks.c_str());
           if (dir == nullptr) return false;
           bool stopped = true;
           while (const dirent* const entry = readdir(dir)) {
             if (entry->d_name[0] == '.') continue;
             stopped = stopped && StateIn(tasks + "/" + entry->d_name) == 'T';
           }
           closedir(dir);
           return stopped;
         });
}

// The process with that name that serves, or keeps, the region.  0 when there is none now.
inline pid_t ProcessOf(const std::string& name, const std::string& region) {
  pid_t found = 0;
  DIR* const proc = opendir("/proc");
  while (const dirent* const entry = readdir(proc)) {
    const std::string dir = std::string("/proc/") + entry->d_name;
    if (WordsOf(dir + "/comm") != name + "\n") continue;
    // One that has ended has no words.
    if (WordsOf(dir + "/cmdline").find(region) != std::string::npos)
      found = std::atoi(entry->d_name);
  }
  closedir(proc);
  return found;
}

// A child of a process that it has not waited for yet; or 0.
inline pid_t ChildOf(pid_t parent) {
  pid_t found = 0;
  DIR* const proc = opendir("/proc");
  while (const dirent* const entry = readdir(proc)) {
    const std::string words = WordsOf(std::string("/proc/") + entry->d_name + "/stat");
    const size_t at = words.rfind(") ");
    if (at == std::string::npos || at + 4 > words.size()) continue;
    if (std::atoi(words.c_str() + at + 4) == parent) found = std::atoi(entry->d_name);
  }
  closedir(proc);
  return found;
}

}  // namespace pkramfs

#endif  // TESTS_PROCESSES_H_
