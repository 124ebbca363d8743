// Draws what compare, loading, checkpoints and bulk have measured, with gnuplot: what is given of
// them.
//   plot --compare compare.json --loading loading.json --checkpoints checkpoints.json
//        --bulk bulk.json --into docs
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <string>

#include "mount/tools/command_line.h"

namespace pkramfs {
namespace {

using Json = nlohmann::ordered_json;

Json Read(const std::string& path) {
  std::ifstream in(path);
  if (!in) throw std::runtime_error(path + ": cannot be read: run the benchmark first");
  return Json::parse(in);
}

void Gnuplot(const std::string& script) {
  FILE* const pipe = popen("gnuplot", "w");
  if (pipe == nullptr) throw std::runtime_error("cannot start gnuplot");
  std::fputs(script.c_str(), pipe);
  if (pclose(pipe) != 0) throw std::runtime_error("gnuplot failed: is it installed?");
}

std::string Output(const std::string& path, int width, int height) {
  std::ostringstream out;
  out << "set terminal svg size " << width << "," << height
      << " font 'sans-serif,12' noenhanced background 'white'\nset output '" << path << "'\n";
  return out.str();
}

// tmpfs's time divided by each one's, and the best of the others.
void DrawComparison(const Json& work, const std::string& path) {
  std::ostringstream rows;
  int count = 0;
  for (const auto& [name, candidates] : work.items()) {
    const double tmpfs = candidates["tmpfs"]["median"];
    double pkramfs = 0, writeback = 0, best = 0;
    for (const auto& [candidate, figures] : candidates.items()) {
      const double ratio = tmpfs / figures["median"].get<double>();
      if (candidate == "pkramfs") {
        pkramfs = ratio;
      } else if (candidate == "writeback") {
        writeback = ratio;
      } else if (candidate != "tmpfs") {
        best = std::max(best, ratio);
      }
    }
    rows << '"' << name << "\" " << ++count << ' ' << pkramfs << ' ' << writeback << ' ' << best
         << '\n';
  }
  std::ostringstream script;
  script
      << Output(path, 900, 60 + 26 * count) << "$rows << END\n"
      << rows.str() << "END\n"
      << "set title \"tmpfs's time / its time\"\n"
         "set logscale x\nset xrange [0.008:40]\nset xtics (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)\n"
         "set yrange ["
      << count << ".5:0.5]\nset grid x\nset key right bottom Left reverse box opaque\n"
      << "set arrow from 1, graph 0 to 1, graph 1 nohead lw 2 lc rgb '#555555'\n"
         "plot $rows using 5:2:ytic(1) with points pt 7 ps 0.7 lc rgb '#aaaaaa' "
         "title 'best of the other FUSE filesystems', "
         "'' using 4:2 with points pt 6 ps 1 lc rgb '#d07020' title 'pkramfs -o writeback', "
         "'' using 3:2 with points pt 7 ps 1 lc rgb '#2060c0' title 'pkramfs'\n";
  Gnuplot(script.str());
}

// Time against size, and what the kernel series' cover letter has.
void DrawLoading(const Json& results, const std::string& path) {
  const std::map<std::string, std::string> titles = {
      {"PageAtATime", "a page at a time"},
      {"InBulk", "in bulk, a link at a time"},
      {"Adoption/stride:1/threads:1", "a filesystem opened, one thread"},
      {"Adoption/stride:1/threads:2", "the same, two threads"},
      {"Adoption/stride:2/threads:1", "one thread, every page apart"},
      {"Adoption/stride:2/threads:2", "two threads, every page apart"}};
  std::map<std::string, std::string> lines;
  for (const Json& b : results["benchmarks"]) {
    std::string name = b["name"];
    if (!b.contains("GB")) continue;
    const bool two = name.find("threads:2") != std::string::npos;
    const bool apart = name.find("stride:2") != std::string::npos;
    name = name.substr(0, name.find('/'));
    if (name == "Adoption") {
      name += apart ? "/stride:2" : "/stride:1";
      name += two ? "/threads:2" : "/threads:1";
    } else if (two) {
      continue;
    }
    std::ostringstream point;
    point << b["GB"].get<double>() << ' ' << b["real_time"].get<double>() << '\n';
    lines[name] += point.str();
  }
  std::ostringstream script, plots;
  script << Output(path, 800, 500);
  int n = 0;
  for (const auto& [name, points] : lines) {
    if (!titles.contains(name)) continue;
    script << "$line" << ++n << " << END\n" << points << "END\n";
    plots << "$line" << n << " with linespoints pt 7 lw 2 title '" << titles.at(name) << "', ";
  }
  script << "$series << END\n100 8833\n100 516\nEND\n"
         << "set logscale xy\nset xlabel 'GB of contents in 4 KiB pages'\nset ylabel 'ms'\n"
            "set xrange [0.7:1500]\nset yrange [0.1:20000]\nset grid\nset key below Left reverse "
            "maxcols 2\nplot "
         << plots.str()
         << "$series with points pt 4 ps 1.5 lc rgb '#555555' "
            "title 'kernel series, cover letter: 1 thread, 16 CPUs (another machine)'\n";
  Gnuplot(script.str());
}

// Seconds of a checkpoint, and of what others do.
void DrawCheckpoints(const Json& rows, const std::string& path) {
  std::ostringstream script;
  script << Output(path, 800, 400) << "$rows << END\n";
  for (const auto& [row, columns] : rows.items()) {
    script << '"' << row << '"';
    for (const char* const column : {"checkpoint, s", "freeze, cp --sparse=always, thaw, sync, s",
                                     "rsync -aHAX --delete, and sync, s"}) {
      script << ' ' << columns[column].get<double>();
    }
    script << '\n';
  }
  script << "END\n"
         << "set logscale y\nset yrange [0.03:50]\nset ylabel 'seconds'\nset grid ytics\n"
            "set style data histograms\nset style fill solid\nset key top right\nplot "
            "$rows using 2:xtic(1) lc rgb '#2060c0' title 'pkramctl checkpoint', "
            "'' using 3 lc rgb '#aaaaaa' title 'freeze, cp --sparse=always, thaw, sync', "
            "'' using 4 lc rgb '#d07020' title 'rsync -aHAX --delete of a tmpfs, sync'\n";
  Gnuplot(script.str());
}

// For each piece of work, how many times as fast as the first way each of the others is.
void DrawBulk(const Json& work, const std::string& path) {
  const std::map<std::string, std::string> styles = {
      {"tar | tar onto tmpfs", "pt 6 lc rgb '#777777'"},
      {"cp -a onto the mount", "pt 7 lc rgb '#d07020'"},
      {"tar | tar onto the mount", "pt 6 lc rgb '#d07020'"},
      {"pkramfs_map", "pt 13 lc rgb '#2060c0'"},
      {"import, 1 thread", "pt 6 lc rgb '#2060c0'"},
      {"import, 2 threads", "pt 7 lc rgb '#2060c0'"},
      {"export | cat", "pt 9 lc rgb '#2060c0'"}};
  std::ostringstream labels;
  std::map<std::string, std::string> points;
  int row = 0;
  for (const auto& [what, ways] : work.items()) {
    const double first = ways.front();
    labels << (row == 0 ? "" : ", ");
    ++row;
    labels << '"' << what << "\\n1 = " << ways.begin().key() << "\" " << row;
    for (const auto& [way, median] : ways.items()) {
      std::ostringstream point;
      point << first / median.get<double>() << ' ' << row << '\n';
      points[way] += point.str();
    }
  }
  std::ostringstream data, plots;
  int n = 0;
  for (const auto& [way, style] : styles) {
    if (!points.contains(way)) continue;
    data << "$way" << ++n << " << END\n" << points[way] << "END\n";
    plots << (n == 1 ? "" : ", ") << "$way" << n << " with points ps 1 " << style << " title '"
          << way << '\'';
  }
  std::ostringstream script;
  script << Output(path, 800, 130 + 60 * row) << data.str()
         << "set title 'How many times as fast'\nset logscale x\nset xrange [0.03:6]\n"
            "set xtics (0.03, 0.1, 0.3, 1, 2, 3, 5)\nset grid x\nset yrange ["
         << row << ".5:0.5]\nset ytics (" << labels.str()
         << ")\nset key below Left reverse maxcols 2\n"
            "set arrow from 1, graph 0 to 1, graph 1 nohead lw 2 lc rgb '#555555'\nplot "
         << plots.str() << '\n';
  Gnuplot(script.str());
}

int Main(int argc, char** argv) {
  std::string compare, loading, checkpoints, bulk, into = "docs";
  CommandLine line("plot", "Draws what the benchmarks have measured.");
  line.Option("--compare", &compare, "What compare has written");
  line.Option("--loading", &loading, "What loading has written");
  line.Option("--checkpoints", &checkpoints, "What checkpoints has written");
  line.Option("--bulk", &bulk, "What bulk has written");
  line.Option("--into", &into, "The folder of the drawings");
  if (const auto status = line.Parse(argc, argv)) return *status;
  if (!compare.empty()) DrawComparison(Read(compare), into + "/compare.svg");
  if (!loading.empty()) DrawLoading(Read(loading), into + "/loading.svg");
  if (!checkpoints.empty()) DrawCheckpoints(Read(checkpoints), into + "/checkpoints.svg");
  if (!bulk.empty()) DrawBulk(Read(bulk), into + "/bulk.svg");
  return 0;
}

}  // namespace
}  // namespace pkramfs

int main(int argc, char** argv) {
  try {
    return pkramfs::Main(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "plot: %s\n", e.what());
    return 1;
  }
}
